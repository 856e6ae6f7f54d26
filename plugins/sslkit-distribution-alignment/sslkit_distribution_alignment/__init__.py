"""What this package offers to sslkit. It names the class and imports nothing heavy, so listing stays fast."""

from sslkit import hookimpl


@hookimpl
def collapse_operators() -> list[str]:
    """Offer ``DistributionAlignment``."""
    return ["sslkit_distribution_alignment.alignment:DistributionAlignment"]
