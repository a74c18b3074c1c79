"""What the fleet of cluster/aws/g6e.yaml costs by its nodes' hours, at its smallest and at its largest, from the profile's prices.

python -m tests.cluster_files.cost     # the table in docs/operations.md
"""

from collections.abc import Iterator

from tests.cluster_files import aws

HOURS = 730  # a month
# m7i.2xlarge, us-east-1, on demand, Linux: twice the m7i.xlarge that c3x.dev listed at $0.2016 in 2026 (m5 vs m6i vs m7i), as sizes of a
# family double in price. The g6e prices stand in the profile's `fleet`.
HEAD_USD_PER_HOUR = 0.4032


def table() -> str:
    """Markdown: one line a node type, then their sum. Spot nodes are counted at the full price, which is a bound."""
    lines = ["| node type | instance | $ an hour | smallest | largest |", "|---|---|---|---|---|"]
    smallest = largest = 0.0
    for name, instance, price, fewest, most in _rows():
        lines.append(f"| `{name}` | {instance} | {price:g} | {fewest} | {most} |")
        smallest += price * fewest
        largest += price * most
    lines.append(f"| **an hour** | | | **${smallest:,.2f}** | **${largest:,.2f}** |")
    lines.append(f"| **a month of {HOURS} hours** | | | **${smallest * HOURS:,.0f}** | **${largest * HOURS:,.0f}** |")
    return "\n".join(lines)


def _rows() -> Iterator[tuple[str, str, float, int, int]]:
    head, types = aws.config()["head_node_type"], aws.types()
    yield head, types[head]["node_config"]["InstanceType"], HEAD_USD_PER_HOUR, 1, 1
    for node in aws.workers():
        instance = types[node.name]["node_config"]["InstanceType"]
        yield node.name, instance, aws.fleet()[instance].usd_per_hour, node.fewest, node.most


if __name__ == "__main__":
    print(table())
