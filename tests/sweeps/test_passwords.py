"""A password in --storage is shown in no message and kept in no file, however the URL is written."""

import traceback

import pytest

from experiments.command import script, search_asked
from vae.runs.files import RunError
from vae.sweeps import passwords, storage

CLOSED = "127.0.0.1:9"  # nobody listens on the discard port: refused at once
URLS = {
    "plain": (f"postgresql://me:Zebra7x@{CLOSED}/db", ["Zebra7x"]),
    "encoded": (f"postgresql://me:Zebra%407x%2FLion@{CLOSED}/db", ["Zebra@7x/Lion", "Zebra", "Lion"]),
    "with @": (f"postgresql://me:Zebra@Lion@{CLOSED}/db", ["Zebra", "Lion"]),
    "with / and :": (f"postgresql://me:Zebra/Lion:Puma@{CLOSED}/db", ["Zebra", "Lion", "Puma"]),
    "with ? and #": (f"postgresql://me:Zebra?Lion#Puma@{CLOSED}/db", ["Zebra", "Lion", "Puma"]),
    "without a user": (f"postgresql://:Zebra7x@{CLOSED}/db", ["Zebra7x"]),
    "in the query": (f"postgresql://me@{CLOSED}/db?password=Zebra7x&connect_timeout=1", ["Zebra7x"]),
    "in the query, twice": (f"postgresql://{CLOSED}/db?user=me&PassWord=Zebra7x&sslpassword=Lion", ["Zebra7x", "Lion"]),
    "bad port": ("postgresql://me:Zebra7x@127.0.0.1:port/db", ["Zebra7x"]),
    "no database known": ("oracle://me:Zebra7x@127.0.0.1/db", ["Zebra7x"]),
    "sqlite": ("sqlite://me:Zebra7x@127.0.0.1/db", ["Zebra7x"]),
    "no such driver": (f"postgresql+nodriver://me:Zebra7x@{CLOSED}/db", ["Zebra7x"]),
    "one slash": (f"postgresql:/me:Zebra7x@{CLOSED}/db", ["Zebra7x"]),
    "no scheme": (f"me:Zebra/Lion@{CLOSED}/db", ["Zebra", "Lion"]),
    "no URL at all": ("postgresql ://me:Zebra7x@/db", ["Zebra7x"]),
    "words of libpq": ("host=127.0.0.1 password=Zebra7x", ["Zebra7x"]),
    "quoted words of libpq": ("host=127.0.0.1 password='Zebra 7x'", ["Zebra"]),
}  # fmt: skip


@pytest.mark.parametrize(("url", "secrets"), URLS.values(), ids=URLS)
def test_no_message_of_a_storage_shows_a_password(tmp_path, monkeypatch, url, secrets):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="`storage=") as caught:
        storage.open_storage(url)
    assert not list(tmp_path.iterdir())  # a journal of that name
    message = str(caught.value)
    assert "\n" not in message
    assert [secret for secret in secrets if secret in message] == []
    # Nor what a traceback shows, once the script has hidden what its command holds.
    monkeypatch.setattr("sys.argv", ["sweep.py", f"--storage={url}"])
    shown = script.without_passwords("".join(traceback.format_exception(caught.value)))
    assert [secret for secret in secrets if secret in shown] == []


@pytest.mark.parametrize(("url", "secrets"), URLS.values(), ids=URLS)
def test_no_password_is_kept(monkeypatch, url, secrets):
    """In `storage` and `argv` of sweep.json and config.json; also of a flag that another one overrides."""
    monkeypatch.setattr("sys.argv", ["sweep.py", f"--storage={url}", "--storage", url, "--storage=/x.journal"])
    kept = " ".join([storage.without_password(url), *search_asked.argv()])
    assert [secret for secret in secrets if secret in kept] == []
    assert passwords.HIDDEN in storage.without_password(url)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me@host/db",
        "postgresql+psycopg://host:5432/db?sslmode=require",
        "/data/x.journal",
        "--sweep=learning_rate=log:1e-4:1e-2",
        "--workdir=runs/me@home",
    ],
)
def test_a_text_without_a_password_stays_as_it_is(text):
    assert storage.without_password(text) == passwords.without_password(text) == text
    assert passwords.passwords_in([text]) == []


def test_a_url_is_shown_with_all_but_its_password():
    assert (
        storage.without_password("postgresql://me:Zebra7x@host:1/db?a=1&b=2") == "postgresql://me:***@host:1/db?a=1&b=2"
    )
    assert (
        storage.without_password("postgresql://me@host/db?password=Zebra7x") == "postgresql://me@host/db?password=***"
    )


def test_a_database_that_goes_away_shows_no_password():
    url = "postgresql://me:Zebra7x@host/db"
    with (
        pytest.raises(RunError, match=r"the study's storage failed \(no connection to \*\*\*") as caught,
        storage.failures_in_a_line(url),
    ):
        raise storage.optuna.exceptions.StorageInternalError("no connection to Zebra7x@host")
    assert "Zebra7x" not in str(caught.value)


def test_no_script_shows_a_password_of_its_command(monkeypatch, capsys):
    """Neither in the line for a user's mistake, nor in a traceback, nor where absl refuses the flag."""
    url = "postgresql://me:Zebra@Lion@host/db"
    monkeypatch.setattr("sys.argv", ["sweep.py", url])

    def fail(error):
        def main(stop):
            raise error

        return main

    for error, code in ((RunError(f"no {url}\n\x1b[31mred"), 1), (ZeroDivisionError(f"no {url}"), 1)):
        monkeypatch.setattr("absl.app.run", lambda main, argv, flags_parser: main(argv))
        monkeypatch.setattr(script, "FLAGS", {"verbosity": type("", (), {"present": 1})})
        assert script.call(fail(error), ["sweep.py"]) == code
        shown = capsys.readouterr().err
        assert "Zebra" not in shown
        assert "Lion" not in shown
        assert "Traceback" in shown if isinstance(error, ZeroDivisionError) else shown.count("\n") == 1
        assert "\x1b" not in shown  # a name in a message moves no cursor

    class Refused:
        def __call__(self, argv):
            raise script.flags.Error(f"flag --devices={url}: no number")

    monkeypatch.setattr(script, "FLAGS", Refused())
    with pytest.raises(SystemExit):
        script.parsed([])
    shown = capsys.readouterr().err
    assert shown.startswith("FATAL Flags parsing error: flag --devices=postgresql://me:***@host/db: no number\n")
