"""The data and its rules: tables, migrations, the state machine and every statement that moves an order."""
