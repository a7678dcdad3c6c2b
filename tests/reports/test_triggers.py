import pytest

from schema.reports.triggers import suspects
from tests.rows import Queue

FUNCTION = "CREATE FUNCTION pg_temp.ok() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$"


def test_queue_as_it_was_migrated_has_no_trigger_that_may_undo_updates(queue: Queue) -> None:
    assert suspects(queue.connection) == []


@pytest.mark.parametrize(
    ("what", "suspect"),
    [
        ("CREATE TRIGGER it BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION pg_temp.ok()", True),
        (
            "CREATE TRIGGER it BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION pg_temp.ok()",
            True,
        ),
        ("CREATE RULE it AS ON UPDATE TO orders DO INSTEAD NOTHING", True),
        ("CREATE TRIGGER it BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION pg_temp.ok()", False),
        ("CREATE TRIGGER it AFTER UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION pg_temp.ok()", False),
        ("CREATE TRIGGER it BEFORE UPDATE ON orders FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.ok()", False),
        ("CREATE RULE it AS ON INSERT TO orders DO INSTEAD NOTHING", False),
    ],
)
def test_what_can_keep_an_update_from_taking_effect_is_a_suspect(
    queue: Queue, what: str, *, suspect: bool
) -> None:
    with queue.connection.transaction(force_rollback=True):
        queue.connection.execute(FUNCTION)
        queue.connection.execute(what)

        assert suspects(queue.connection) == (["it"] if suspect else [])


def test_disabled_trigger_is_no_suspect(queue: Queue) -> None:
    with queue.connection.transaction(force_rollback=True):
        queue.connection.execute(FUNCTION)
        queue.connection.execute(
            "CREATE TRIGGER it BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION pg_temp.ok()"
        )
        queue.connection.execute("ALTER TABLE orders DISABLE TRIGGER it")

        assert suspects(queue.connection) == []
