import importlib.util
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator

from afterwards import registry
from afterwards.errors import ArgumentsRefused, UnknownTask
from afterwards.model import Policy
from afterwards.registry import task


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the application's registry out of this, and this out of it."""
    monkeypatch.setattr(registry, "_by_name", {})
    monkeypatch.setattr(registry, "_by_function", {})


def greet(name: str, times: int = 1, *, loudly: bool = False) -> None:
    pass


def test_registered_functions_stay_unchanged_and_found() -> None:
    assert task(attempts=3, timeout=10)(greet) is greet
    entry = registry.of_function(greet)
    assert entry is registry.of_name("greet")
    assert entry is not None
    assert (entry.function, entry.is_async, entry.policy) == (
        greet,
        False,
        Policy(attempts=3, timeout=10),
    )


def test_a_name_may_outlive_its_function() -> None:
    task("say-hello")(greet)
    assert registry.of_name("say-hello").function is greet
    with pytest.raises(UnknownTask, match="no task function is named 'greet'"):
        registry.of_name("greet")


def test_two_functions_cannot_have_one_name() -> None:
    task("hello")(greet)
    with pytest.raises(ValueError, match="two task functions are named 'hello'"):
        task("hello")(lambda: None)


def elsewhere(tmp_path: Path, name: str) -> ModuleType:
    path = tmp_path / f"{name}.py"
    path.write_text("from afterwards import task\n\n@task()\ndef send() -> None: ...\n")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_modules_cannot_share_a_name(tmp_path: Path) -> None:
    first = elsewhere(tmp_path, "first")
    with pytest.raises(ValueError, match="two task functions are named 'send'"):
        elsewhere(tmp_path, "second")
    assert registry.of_name("send").function is first.send


def test_a_module_may_be_loaded_twice(tmp_path: Path) -> None:
    elsewhere(tmp_path, "twice")
    again = elsewhere(tmp_path, "twice")
    assert registry.of_name("send").function is again.send


@pytest.mark.parametrize("name", ["json", "schema", "copy", "model_config", "_private", "self"])
def test_a_parameter_may_have_any_name(name: str) -> None:
    function: dict[str, Callable[..., None]] = {}
    exec(f"def named({name}: int) -> None: ...", function)
    entry = registry.of_function(task()(function["named"]))
    assert entry is not None
    assert entry.dump([1], {}) == ({name: 1}, f'{{"{name}":1}}')
    with pytest.raises(ArgumentsRefused, match=f"^named: {name}: "):
        entry.dump(["one"], {})


def test_every_attempt_gets_the_same_arguments() -> None:
    @task()
    def loose(when, many) -> None: ...  # type: ignore[no-untyped-def]  # nor by anybody in a hurry

    entry = registry.of_function(loose)
    assert entry is not None
    given = ["a list that the handler may change"]
    arguments, text = entry.dump([datetime(2030, 1, 1, tzinfo=UTC), given], {})
    assert arguments == entry.load(text)
    assert arguments["when"] == "2030-01-01T00:00:00Z"
    assert arguments["many"] is not given


def test_an_unregistered_function_is_not_found() -> None:
    assert registry.of_function(greet) is None
    assert registry.of_function([]) is None  # type: ignore[arg-type]


def test_arguments_survive_their_row() -> None:
    task()(greet)
    entry = registry.of_name("greet")
    arguments, text = entry.dump(["Ada \N{PILE OF POO}"], {"loudly": True})
    assert (
        entry.load(text) == arguments == {"name": "Ada \N{PILE OF POO}", "times": 1, "loudly": True}
    )


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [([], {}), ([1], {}), (["a", "b"], {}), (["a"], {"other": 1}), (["a", 1, True], {})],
)
def test_enqueueing_refuses_unfit_arguments(args: list[Any], kwargs: dict[str, Any]) -> None:
    task()(greet)
    with pytest.raises(ArgumentsRefused, match=r"^greet: "):
        registry.of_name("greet").dump(args, kwargs)


@pytest.mark.parametrize(
    "text", ["{}", '{"name": 1}', '{"name": "a", "gone": 1}', "[]", "not JSON"]
)
def test_loading_refuses_unfit_arguments(text: str) -> None:
    task()(greet)
    with pytest.raises(ArgumentsRefused, match=r"^greet: "):
        registry.of_name("greet").load(text)


def test_only_json_arguments_are_taken() -> None:
    @task()
    def anything(value: Any) -> None:
        pass

    with pytest.raises(ArgumentsRefused):
        registry.of_name("anything").dump([object()], {})


def test_an_added_default_fits_old_rows() -> None:
    task()(greet)
    assert registry.of_name("greet").load('{"name": "a"}') == {
        "name": "a",
        "times": 1,
        "loudly": False,
    }


def test_task_functions_take_no_star_parameters() -> None:
    def starry(*args: int) -> None:
        pass

    with pytest.raises(TypeError, match="by name"):
        task()(starry)


# --- secret ---


@pytest.mark.parametrize("names", [{"nam"}, ["name", "Name"]])
def test_secrets_must_be_parameters(names: Any) -> None:
    with pytest.raises(ValueError, match=r"greet: secret names [nN]am"):
        task(secret=names)(greet)
    with pytest.raises(TypeError, match="takes a set of names"):
        task(secret="name")
    task(secret={"name"})(greet)


def picky(value: str) -> str:
    raise ValueError(f"{value} is wrong")


def rude(value: str) -> str:
    raise LookupError(f"{value} is wrong")


@pytest.mark.parametrize("check", [picky, rude])
def test_no_refusal_tells_a_secret(check: Callable[[str], str]) -> None:
    def send(email: Annotated[str, AfterValidator(check)], times: int) -> None: ...

    task(secret={"email"})(send)
    entry = registry.of_name("send")
    for refused in (
        lambda: entry.dump(["ada@example.com", "x"], {}),
        lambda: entry.load('{"email": "ada@example.com", "times": "x"}'),
    ):
        with pytest.raises(ArgumentsRefused) as error:
            refused()
        assert "ada" not in str(error.value)
        if check is picky:
            assert str(error.value).startswith("send: email: value_error; times: Input should")


def test_other_refusals_tell_all() -> None:
    def send(email: Annotated[str, AfterValidator(picky)]) -> None: ...

    task()(send)
    with pytest.raises(ArgumentsRefused, match="ada is wrong"):
        registry.of_name("send").dump(["ada"], {})
