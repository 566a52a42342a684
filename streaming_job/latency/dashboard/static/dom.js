// Building and updating elements. Text is set as text, never as markup: names come from tables and keys.

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Only when it differs: a live region must not speak again for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setData(element, value, text) {
  element.setAttribute("value", value === null || value === undefined ? "" : String(value));
  setText(element, text);
}

/** A figure whose exact value stands beside what is shown of it. */
export const data = (value, text) => make("data", { value: value === null || value === undefined ? "" : String(value) }, text);

const SHAPES = {
  good: "M6 0a6 6 0 1 0 .01 0z",
  watch: "M6 0 12 11H0z",
  bad: "M0 0h12v12H0z",
  unknown: "M6 1a5 5 0 1 0 .01 0zm0 2a3 3 0 1 1-.01 0z",
};

/** A level by its shape, so that colour is not the only sign. */
export function sign(level) {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", "0 0 12 12");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(ns, "path");
  path.setAttribute("d", SHAPES[level] ?? SHAPES.unknown);
  svg.append(path);
  return svg;
}
