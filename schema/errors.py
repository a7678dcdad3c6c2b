"""What can go wrong, as small classes that build their own message.

Nothing here knows HTTP or exit statuses by heart: `orders_api.problems` maps errors to answers and
`schema.startup` maps them to exit statuses, each in one place.
"""


class OrdersError(Exception):
    """Base of every error that this project raises on purpose."""


class SettingError(OrdersError):
    """A setting that the process can't start with. `value` is shown as given: never pass a secret."""

    def __init__(self, name: str, value: str | None, expected: str) -> None:
        shown = "is not set" if value is None else f"is {value!r}"
        super().__init__(f"{name} {shown}: {expected}")
        self.name = name


class StartError(OrdersError):
    """Something outside the settings keeps the process from starting; the message names the remedy."""


class DatabaseUnavailableError(OrdersError):
    """No connection to the database can be had right now; trying again later may help."""
