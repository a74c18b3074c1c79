"""Settings of the cost exporter."""

from typing import Annotated

from pydantic import Field

from serve_app.settings.strict import Seconds, Strict


class ExporterSettings(Strict):
    """`tierwise cost-exporter`: what it reads, and where it answers Prometheus."""

    host: str = Field(default="127.0.0.1", description="Address on which Prometheus may ask; it answers without a key.")
    port: int = Field(default=9470, ge=0, le=65535, description="Port; 0 takes a free one.")
    every_s: Seconds = Field(default=10.0, description="Time between two readings, in seconds.")
    timeout_s: Seconds = Field(default=5.0, description="A node that takes longer is read the next time, in seconds.")
    targets: list[str] = Field(default_factory=list, description="URLs of Ray's metrics, one a node; none: those of `discovery`.")
    discovery: str = Field(
        default="/tmp/ray/prom_metrics_service_discovery.json",  # noqa: S108 - where Ray writes it
        description="Ray's file of the nodes' metrics addresses, on the head node.",
    )
    state: str = Field(default="tierwise-cost.json", description="File in which the sums survive a restart; empty: they do not.")
    timezone: str = Field(default="UTC", description="Where a day begins, as a name of the time zone database.")
    gap_s: Seconds = Field(
        default=3600.0, description="A time without readings is charged at the last known rate up to this length, in seconds."
    )
    instances: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="Dollars an hour of instance types, over `fleet` and the packaged table."
    )
    utilisation: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.7, description="Share of its sequences that an all-large fleet would be run at, for the comparison."
    )
