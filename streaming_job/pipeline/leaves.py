"""An image as its leaves, by Spark expressions alone: an array of {slot, raw} for each row.

A slot is the value's kind and its path ("n/vehicle/year"); `raw` is a string's text, a number's or boolean's literal,
or JSON text. Spark has no recursion, so the walk is a round for each level down to `depth_max`; a round replaces each
map by its fields. Fragments are SQL text: one call hands the whole expression to the JVM, where thousands of `Column`
calls would take longer than the batch.
"""

from collections.abc import Sequence
from typing import Final

from config.tables import FlattenRules, LakeRules, PivotRule
from streaming_job.pipeline.columns import BINARY, BOOLEAN, JSON, LIST, MAP, NUMBER, STRING, UNFIT, KeyColumn, path_of
from streaming_job.pipeline.jsontext import (
    STRICT_JSON,
    bind,
    has_lone_surrogate,
    is_in,
    literal,
    mark,
    number_token,
    quote,
    unmark,
)
from streaming_job.pipeline.naming import segments, template_fields

_FIRST_CHARACTERS: Final = "'#{[tf-0123456789"
_KINDS: Final = STRING + NUMBER + MAP + LIST + BOOLEAN * 2 + NUMBER * 11
"""What the first character of a marked value tells of its kind."""

_NOWHERE: Final = "CAST(NULL AS STRING)"
"""Where nothing of `types` applies: inside embedded JSON."""

_TEXT: Final = literal("'")
_QUOTE: Final = '"'
_SEAL: Final = ""","'z":{"'z":"'"""
_SEALED: Final = '"}}'
_SEAL_NAME: Final = literal("'z")
"""A last part, marked like the others, whose value is a hash of all before it."""

_MAP: Final = "'map<string,string>'"


def leaves(lake: LakeRules, keys: Sequence[KeyColumn]) -> str:
    """Of the columns `new` (an image, or null) and `types`, without the key's. Null where there is no image."""
    root = f"named_struct('path', '', 'at', '/new', 'kind', '{MAP}', 'raw', {mark('new')})"
    entries = f"array({root})"
    whole = [*lake.flatten.json_, *(path for path, rule in lake.columns.items() if rule.type == "json")]
    for depth in range(lake.flatten.depth_max + 1):
        entries = f"flatten(transform({entries}, e -> {_round(lake.flatten, whole, depth)}))"
    is_key = is_in("e.path", [key.path for key in keys])
    kept = f"filter({entries}, e -> e.kind IS NOT NULL AND e.raw IS NOT NULL AND NOT {is_key})"
    settled = f"transform({kept}, e -> {_settled()})"
    return f"CASE WHEN new IS NOT NULL THEN {bind('s', settled, _without_repeats('s'))} END"


def _round(rules: FlattenRules, whole: Sequence[str], depth: int) -> str:
    """What takes the place of entry `e`: its parts, or itself. `whole` are the attributes kept as JSON."""
    cases = [
        f"WHEN e.kind NOT IN ('{JSON}', '{UNFIT}') AND {is_in('e.path', map(path_of, whole))} "
        f"THEN array({_kept_whole()})"
        if whole
        else "",
        *(
            f"WHEN e.kind = '{LIST}' AND e.path = {literal(path_of(pivot.list))} THEN {_pivot(pivot)}"
            for pivot in rules.pivot
            if len(segments(path_of(pivot.list))) == depth
        ),
        f"WHEN e.kind = '{LIST}' AND {is_in('e.path', map(path_of, rules.index))} THEN {_elements()}"
        if rules.index
        else "",
        f"WHEN e.kind = '{STRING}' AND e.at IS NOT NULL AND {is_in('e.path', map(path_of, rules.embedded))} "
        f"THEN {_embedded('e.path', 'e.raw', None)}"
        if rules.embedded
        else "",
        f"WHEN e.kind = '{MAP}' THEN {bind('m', f'from_json(e.raw, {_MAP})', _read_map())}",
    ]
    return f"CASE {' '.join(filter(None, cases))} ELSE array(e) END"


def _read_map() -> str:
    # Null: a number longer than the parser takes, say. DynamoDB makes none; a hand-made envelope may.
    unreadable = _unfit("e.path", unmark("e.raw"))
    return f"CASE WHEN m IS NULL THEN array({unreadable}) ELSE {_fields('m', 'e.path', 'e.at', None)} END"


def _entry(path: str, at: str, value: str) -> str:
    """A marked value at `path`; `at` is its place in the image, where `types` may say more of it."""
    first = f"translate(left({value}, 1), {literal(_FIRST_CHARACTERS)}, '{_KINDS}')"
    typed = (
        f"CASE WHEN types IS NULL THEN {first} ELSE "
        f"CASE try_element_at(types, {at}) WHEN 'B' THEN '{BINARY}' WHEN 'N' THEN '{NUMBER}' ELSE {first} END END"
    )
    place = at if at == _NOWHERE else f"CASE WHEN types IS NULL THEN '' ELSE {at} END"
    raw = f"CASE WHEN left({value}, 1) IN ({_TEXT}, '#') THEN substring({value}, 2) ELSE {value} END"
    return f"named_struct('path', {path}, 'at', {place}, 'kind', {typed}, 'raw', {raw})"


def _escaped(name: str) -> str:
    return f"replace(replace({name}, '~', '~0'), '/', '~1')"


def _fields(fields: str, path: str, at: str, unwrap: str | None) -> str:
    """Of a parsed map; with `unwrap`, a map of that field alone is its value."""
    name = _escaped("substring(f.key, 2)")
    entry = _entry(f"concat({path}, '/', {name})", f"concat({at}, '/', {name})", "f.value")
    listed = f"transform(map_entries({fields}), f -> {entry})"
    if unwrap is None:
        return listed
    name = literal("'" + unwrap)
    only = f"size({fields}) = 1 AND map_keys({fields})[0] = {name}"
    single = _entry(path, f"concat({at}, '/', {literal(unwrap)})", f"{fields}[{name}]")
    return f"CASE WHEN {only} THEN array({single}) ELSE {listed} END"


def _elements() -> str:
    entry = _entry("concat(e.path, '/', i)", "concat(e.at, '/', i)", "v")
    return f"transform(from_json(e.raw, 'array<string>'), (v, i) -> {entry})"


def _kept_whole() -> str:
    text = (
        f"CASE WHEN e.kind IN ('{STRING}', '{BINARY}') THEN {quote('e.raw')} "
        f"WHEN e.kind = '{NUMBER}' THEN {number_token('e.raw')} ELSE {unmark('e.raw')} END"
    )
    return f"named_struct('path', e.path, 'at', e.at, 'kind', '{JSON}', 'raw', {text})"


def _unfit(path: str, text: str) -> str:
    return f"named_struct('path', {path}, 'at', {_NOWHERE}, 'kind', '{UNFIT}', 'raw', {text})"


def _as_json(value: str) -> str:
    """A marked value as the JSON it was."""
    inner = f"substring({value}, 2)"
    return f"CASE left({value}, 1) WHEN {_TEXT} THEN {quote(inner)} WHEN '#' THEN {inner} ELSE {unmark(value)} END"


def _embedded(path: str, text: str, unwrap: str | None) -> str:
    """Of a string that should hold JSON.

    Parsed between brackets with a hash behind it: from_json reads no further than the first value's end, and would pass
    over whatever follows.
    """
    wrapped = f"concat('{{\"v\":[', {mark('t')}, '],\"z\":', xxhash64(t), '}}')"
    as_map = f"from_json(w, 'v array<map<string,string>>, z bigint', {STRICT_JSON})"
    as_any = f"from_json(w, 'v array<string>, z bigint', {STRICT_JSON})"
    unfit = f"array({_unfit(path, quote('t'))})"
    distinct = "size(map_keys(p.v[0])) = size(array_distinct(map_keys(p.v[0])))"
    read = (
        f"CASE WHEN {has_lone_surrogate('t')} THEN {unfit} "
        f"WHEN p.z = xxhash64(t) AND size(p.v) = 1 AND p.v[0] IS NOT NULL AND {distinct} "
        f"THEN {_fields('p.v[0]', path, _NOWHERE, unwrap)} "
        f"WHEN get(p.v, 0) IS NULL THEN {bind('q', as_any, _scalar(path))} ELSE {unfit} END"
    )
    return bind("t", text, bind("w", wrapped, bind("p", as_map, read)))


def _scalar(path: str) -> str:
    entry = _entry(path, _NOWHERE, "q.v[0]")
    return (
        f"CASE WHEN q.z = xxhash64(t) AND size(q.v) = 1 THEN array({entry}) ELSE array({_unfit(path, quote('t'))}) END"
    )


def _pivot(rule: PivotRule) -> str:
    """Of a list of maps: the value of each under its names.

    An element without them, or with those of an earlier one, is kept under its place.
    """
    names = template_fields(rule.name)
    wanted = dict.fromkeys([*names, rule.value, *rule.fields])
    fields = ", ".join(f"{_quoted(name)}: string" for name in wanted)
    alone = f"transform(from_json(e.raw, 'array<string>'), v -> from_json(v, {literal(f'struct<{fields}>')}))"
    # One element that is no map makes the list unreadable at once: then each is read for itself.
    parsed = f"coalesce(from_json(e.raw, {literal(f'array<struct<{fields}>>')}), {alone})"
    read = [_field("v", name) for name in names]
    is_named = " AND ".join(f'left({value}, 1) = "\'"' for value in read)
    parts = ", ".join(f"'/', {_escaped(f'substring({value}, 2)')}" for value in read)
    base = f"CASE WHEN {is_named} THEN concat(e.path, {parts}) END"
    named = f"transform(l, v -> named_struct('base', {base}, 'v', v))"
    each = f"flatten(transform(n, (b, i) -> {_pivoted(rule)}))"
    if rule.embedded:
        each = _joined(rule, each)
    return bind("l", parsed, bind("n", named, bind("k", "transform(n, b -> b.base)", each)))


def _joined(rule: PivotRule, each: str) -> str:
    """The usual list, every element named and every value a JSON object: parsed in one go, as parts of one object.

    What comes out must have the parts that went in and the hash behind them, or one of the values was no single
    object; then `each` is read for itself.
    """
    value = _field("b.v", rule.value)
    text = f"CASE WHEN left({value}, 1) = {_TEXT} THEN substring({value}, 2) END"
    parts = f"transform(n, (b, i) -> concat({literal(_QUOTE)}, i, {literal(_QUOTE + ':')}, {text}))"
    seal = f"{literal(_SEAL)}, xxhash64(t), {literal(_SEALED)}"
    whole = f"concat('{{', {mark('t')}, {seal})"
    names = f"concat(transform(n, (b, i) -> concat({_TEXT}, i)), array({_SEAL_NAME}))"
    repeats = "exists(map_values(p), m -> size(map_keys(m)) != size(array_distinct(map_keys(m))))"
    is_whole = (
        f"size(array_compact(k)) = size(n) AND size(array_distinct(k)) = size(n) AND map_keys(p) = {names} "
        f"AND p[{_SEAL_NAME}][{_SEAL_NAME}] = concat({_TEXT}, xxhash64(t)) "
        f"AND NOT {repeats} AND NOT {has_lone_surrogate('t')}"
    )
    fields = f"flatten(transform(n, (b, i) -> {_read(rule, _fields('o[i]', 'b.base', _NOWHERE, rule.unwrap))}))"
    parsed = f"from_json({whole}, 'map<string,map<string,string>>', {STRICT_JSON})"
    body = f"CASE WHEN coalesce({is_whole}, false) THEN {bind('o', 'map_values(p)', fields)} ELSE {each} END"
    return bind("t", f"array_join({parts}, ',')", bind("p", parsed, body))


def _quoted(name: str) -> str:
    marked = "'" + name
    return "`" + marked.replace("`", "``") + "`"


def _field(struct: str, name: str) -> str:
    return f"{struct}.{_quoted(name)}"


def _pivoted(rule: PivotRule) -> str:
    """Of one element `b` at place `i`."""
    value = _field("b.v", rule.value)
    at = f"concat(e.at, '/', i, '/', {literal(rule.value)})"
    of_map = bind("m", f"from_json({value}, {_MAP})", _fields("m", "b.base", at, rule.unwrap))
    cases = [f"WHEN left({value}, 1) = '{{' THEN {of_map}"]
    if rule.embedded:
        cases.append(f'WHEN left({value}, 1) = "\'" THEN {_embedded("b.base", f"substring({value}, 2)", rule.unwrap)}')
    read = f"CASE {' '.join(cases)} ELSE array({_entry('b.base', at, value)}) END"
    unfit = _unfit("concat(e.path, '/', i)", bind("v", "from_json(e.raw, 'array<string>')[i]", _as_json("v")))
    is_first = "(size(k) = size(array_distinct(k)) OR array_position(k, b.base) = i + 1)"
    return f"CASE WHEN b.base IS NOT NULL AND {is_first} THEN {_read(rule, read)} ELSE array({unfit}) END"


def _read(rule: PivotRule, value: str) -> str:
    """An element's value, and its other fields where the rule names them."""
    if not rule.fields:
        return value
    others = [
        _entry(
            f"concat(b.base, '/', {literal(name)})", f"concat(e.at, '/', i, '/', {literal(name)})", _field("b.v", name)
        )
        for name in rule.fields
    ]
    return f"concat({value}, array({', '.join(others)}))"


def _settled() -> str:
    """An entry as a leaf. A list, or a map below `depth_max`, is JSON text."""
    slot = f"concat(CASE WHEN e.kind IN ('{LIST}', '{MAP}') THEN '{JSON}' ELSE e.kind END, e.path)"
    raw = f"CASE WHEN e.kind IN ('{LIST}', '{MAP}') THEN {unmark('e.raw')} ELSE e.raw END"
    return f"named_struct('slot', {slot}, 'raw', {raw})"


def _without_repeats(settled: str) -> str:
    """An image may hold a name twice, two rules may lead to one path: the first value is the column's."""
    paths = f"transform({settled}, x -> substring(x.slot, 2))"
    first = f"array_position(k, substring(x.slot, 2)) = i + 1 OR left(x.slot, 1) = '{UNFIT}'"
    text = f"CASE WHEN left(x.slot, 1) IN ('{STRING}', '{BINARY}') THEN {quote('x.raw')} ELSE x.raw END"
    repeated = f"named_struct('slot', concat('{UNFIT}', substring(x.slot, 2)), 'raw', {text})"
    marked = f"transform({settled}, (x, i) -> CASE WHEN {first} THEN x ELSE {repeated} END)"
    return bind("k", paths, f"CASE WHEN size(array_distinct(k)) = size(k) THEN {settled} ELSE {marked} END")
