"""The price table, checked as it is read."""

from datetime import date
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import Field, ValidationError

from config.errors import ConfigurationError
from config.tables import Frozen

PRICES: Final = Path(__file__).parents[2] / "config" / "prices.yaml"

Usd = Annotated[float, Field(ge=0)]


class KinesisPrices(Frozen):
    on_demand_stream_h: Usd
    on_demand_in_gb: Usd
    on_demand_out_gb: Usd
    on_demand_fan_out_gb: Usd
    shard_h: Usd
    put_units_million: Usd
    fan_out_shard_h: Usd
    fan_out_gb: Usd
    extended_shard_h: Usd
    extended_gb_month: Usd
    long_term_gb_month: Usd


class FirehosePrices(Frozen):
    in_gb: Usd


class LambdaPrices(Frozen):
    requests_million: Usd
    gb_s: Usd


class S3Prices(Frozen):
    standard_gb_month: Usd
    infrequent_gb_month: Usd
    put_thousand: Usd
    get_thousand: Usd
    transition_thousand: Usd


class DynamoDbPrices(Frozen):
    read_units_million: Usd
    write_units_million: Usd
    stored_gb_month: Usd


class PipesPrices(Frozen):
    requests_million: Usd


class KmsPrices(Frozen):
    key_month: Usd


class CloudWatchPrices(Frozen):
    metric_month: Usd
    logs_gb: Usd
    alarm_month: Usd
    dashboard_month: Usd


class SecretsPrices(Frozen):
    secret_month: Usd


class JobPrices(Frozen):
    instance: str
    cores: int = Field(gt=0)
    instance_h: Usd
    dbu_per_h: Usd
    dbu: Usd


class Prices(Frozen):
    as_of: date
    region: str
    month_h: float = Field(gt=0)
    kinesis: KinesisPrices
    firehose: FirehosePrices
    lambda_: LambdaPrices = Field(alias="lambda")
    s3: S3Prices
    dynamodb: DynamoDbPrices
    pipes: PipesPrices
    kms: KmsPrices
    cloudwatch: CloudWatchPrices
    secrets_manager: SecretsPrices
    job: JobPrices


def load_prices(path: Path = PRICES) -> Prices:
    try:
        return Prices.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", hint="config/prices.yaml is one") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ConfigurationError.of_validation(path, error) from error
