"""A hash of the settings in force: two decisions with the same one were made under the same settings."""

import hashlib
import json

from pydantic import BaseModel


def digest(settings: BaseModel, live: BaseModel) -> str:
    """SHA-256 in hexadecimal. No secret stands in settings, only the names of the variables that hold them."""
    text = json.dumps([settings.model_dump(mode="json", exclude={"live"}), live.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
