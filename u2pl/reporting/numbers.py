"""How numbers read in tables and sentences."""


def signed(value: float) -> str:
    """`value` with its sign and two decimals: `+1.20`, `−0.35`."""
    return f"{value:+.2f}".replace("-", "−")
