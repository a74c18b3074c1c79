"""A record as plain data: what the ledger stores and `/v1/decisions/{id}` answers. Pure."""

from dataclasses import asdict

from serve_app.domain import Json, Record


def receipt(record: Record) -> Json:
    """All of the record, with what follows from it."""
    data = asdict(record)
    data["saved_usd"] = record.saved_usd
    data["decision"]["margin"] = record.decision.margin
    data["decision"]["allowed"] = [tier.value for tier in record.decision.allowed]
    data["usage"] = {**asdict(record.usage), "total_tokens": record.usage.total_tokens}
    return data
