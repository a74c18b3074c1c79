"""What every settings model is made of. Strict: an unknown key or a wrong type is an error that names its path (see `explain`)."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]
PositiveInt = Annotated[int, Field(ge=1)]
Percent = Annotated[int, Field(ge=0, le=100)]
SURGE = (
    "Replicas that an update may have beside the old ones, in percent: 100 starts each successor before an old replica stops, "
    "and waits for a node that has room; 0 stops first."
)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())
