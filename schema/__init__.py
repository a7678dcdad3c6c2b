"""The data and its rules.

Read in this order: `states`, `order`, `queue/exchange`, `queue/endings`, `queue/rescue`.

`states` the order's state machine · `order` an order's values · `errors` · `uuid7`
`tables`, `ledgers` the tables · `migrations`, `migrate`, `revision` how a database gets and keeps them
`queue` every statement that moves an order · `reports` every statement that only looks
`intake` text into orders · `runtime` what every process here has · `embedded` the bundled PostgreSQL
`cli` the terminal
"""

__version__ = "0.1.0"
DISTRIBUTION = "orders-queue"
"""How `orders_queue` tells this package from PyPI's of the same name."""
