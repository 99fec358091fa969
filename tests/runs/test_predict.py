import datetime
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import torchpure as tp
from torchpure.cli import main
from torchpure.data import column_names, read_table
from torchpure.errors import InputError
from torchpure.runs import predict_table

pytestmark = pytest.mark.usefixtures("here")
CITIES = {"Bern": 7.0, "Oslo": 5.0, "Rome": 3.0}


@pytest.fixture
def houses(here):
    """Write houses whose price follows from city, street, area and garden."""
    draw = random.Random(0)
    rows = []
    for number in range(240):
        city, street = draw.choice([*CITIES]), draw.randrange(20)
        area, garden = draw.uniform(30, 200), draw.random() < 0.5
        price = CITIES[city] * area + 100 * garden + 5 * street
        built = datetime.date(1950 + number % 70, 1 + number % 12, 1)
        kind = "big" if area > 100 else "small"
        rows.append(
            (city, f"s{street}", f"{area:.2f}", str(garden).lower(), built, f"{price:.2f}", f"{area / 2:.2f}", kind)
        )
    header = "city,street,area,garden,built,price,half,kind"
    (here / "houses.csv").write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return here / "houses.csv"


def predicted_by(folder, source):
    """Predict with a run that was loaded from its folder, without its data."""
    loaded = tp.load_run(folder)
    return predict_table(
        loaded.model, loaded.preprocessing, read_table(source, [one.name for one in loaded.preprocessing.inputs])
    )


def test_a_saved_run_predicts_for_a_file_of_another_format(here, houses, capsys):
    words = [
        "--target",
        "price",
        "--inputs",
        "city,street,area,garden,built",
        "--steps",
        "400",
        "--out",
        "mine",
        "--json",
    ]
    assert main(["fit", str(houses), *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["r2"] > 0.95
    assert 0 < result["relative_error"] < 0.1
    assert [column.kind for column in tp.load_run("mine").preprocessing.inputs] == [
        "one-hot",
        "embedding",
        "number",
        "number",
        "days",
    ]
    new = {"area": [100.0, 100.0], "city": ["Bern", "Rome"], "street": ["s3", "s3"], "garden": [True, False]}
    pq.write_table(pa.table(new | {"built": [datetime.date(1980, 1, 1)] * 2}), here / "new.parquet")
    predicted = predicted_by(here / "mine", here / "new.parquet")["price"].to_pylist()
    assert predicted == pytest.approx([815, 315], rel=0.1)
    run = tp.load_run("mine")
    for rows in (texts := new | {"built": ["1980-01-01", "1980-01-01 00:00"]}, pa.table(texts)):
        assert run.model(run.encode(rows)).tolist() == predicted


def test_the_predictions_are_the_networks_values_on_the_encoded_rows(here, houses):
    assert (
        main(["fit", str(houses), "--target", "price,half", "--inputs", "city,area", "--steps", "300", "--out", "mine"])
        == 0
    )
    predicted = predicted_by(here / "mine", houses)
    assert predicted.column_names == ["price", "half"]
    true = [float(line.split(",")[6]) for line in houses.read_text().splitlines()[1:]]
    errors = torch.tensor(predicted["half"].to_pylist()) - torch.tensor(true)
    assert float(errors.abs().mean()) < 5
    last = json.loads((here / "mine/metrics.jsonl").read_text().splitlines()[-1])
    assert last["r2"] > 0.8


def test_classes_are_predicted_by_name(here, houses, capsys):
    words = ["--target", "kind", "--inputs", "area,city", "--steps", "300", "--batch-size", "50", "--out", "mine"]
    assert main(["fit", str(houses), *words, "--validation-points", "0.2"]) == 0
    assert "accuracy" in capsys.readouterr().out
    predicted = predicted_by(here / "mine", houses)
    true = [line.split(",")[-1] for line in houses.read_text().splitlines()[1:]]
    right = sum(one == other for one, other in zip(predicted["kind"].to_pylist(), true, strict=True))
    assert right > 0.95 * len(true)
    assert all(0.5 <= value <= 1 for value in predicted["kind_probability"].to_pylist())
    *steps, last = [json.loads(line) for line in (here / "mine/metrics.jsonl").read_text().splitlines()]
    assert last["accuracy"] > 0.9
    assert sum(map(sum, last["confusion"])) == 48
    per_epoch = 3  # 144 training points in batches of 50
    validated = [line["step"] for line in steps if "validation_loss" in line]
    assert validated == list(range(per_epoch, 301, per_epoch))
    assert steps[-1]["validation_loss"] < steps[per_epoch - 1]["validation_loss"]


@pytest.mark.parametrize(("values", "loss"), [([3, 7], "cross-entropy"), ([True, False], "cross-entropy")])
def test_classes_have_the_type_of_the_file(here, values, loss):
    rows = [(x, values[x > 5]) for x in range(12)]
    (here / "a.csv").write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in rows))
    assert main(["fit", "a.csv", "--target", "y", "--loss", loss, "--out", "mine"]) == 0
    assert predicted_by(here / "mine", here / "a.csv")["y"].to_pylist() == [y for _, y in rows]


def test_a_date_as_target(here):
    days = [datetime.date(2026, 1, 1) + datetime.timedelta(x) for x in range(40)]
    (here / "a.csv").write_text("x,y\n" + "".join(f"{x},{day}\n" for x, day in enumerate(days)))
    assert main(["fit", "a.csv", "--target", "y", "--out", "mine"]) == 0
    predicted = predicted_by(here / "mine", here / "a.csv")["y"].to_pylist()
    assert all(abs(one.date() - day) <= datetime.timedelta(1) for one, day in zip(predicted, days, strict=True))


def test_an_unseen_category_gets_the_average(here, houses):
    assert (
        main(["fit", str(houses), "--target", "price", "--inputs", "street,area", "--steps", "20", "--out", "mine"])
        == 0
    )
    network = tp.load_run("mine").model
    (here / "new.csv").write_text("street,area\nelsewhere,100\n")
    (predicted,) = predicted_by(here / "mine", here / "new.csv")["price"].to_pylist()
    weight = network.core[0].tables["column0"].weight
    x = torch.cat([weight.mean(0), network.encode(torch.tensor([[0.0, 100.0]]).double())[0, 1:]])
    with torch.no_grad():
        value = float(network.core[1:](x[None])[0, 0].double() * network.target_scale + network.target_mean)
    assert predicted == pytest.approx(value, rel=1e-5)


def test_a_column_that_is_missing(here, houses):
    assert (
        main(["fit", str(houses), "--target", "price", "--inputs", "city,area", "--steps", "2", "--out", "mine"]) == 0
    )
    (here / "new.csv").write_text("city,aera\nBern,3\n")
    with pytest.raises(InputError, match=r"new.csv: the model needs column `area` .did you mean `aera`.."):
        predicted_by(here / "mine", here / "new.csv")


@pytest.mark.parametrize("policy", ["error", "drop", "mean"])
def test_missing_values(here, houses, capsys, policy):
    lines = houses.read_text().splitlines()
    lines[5] = lines[5].replace(lines[5].split(",")[2], "", 1)
    houses.write_text("\n".join(lines))
    words = ["--target", "price", "--inputs", "city,area", "--steps", "5", "--out", "mine", "--missing", policy]
    code = main(["fit", str(houses), *words])
    if policy == "error":
        assert code == 2
        assert "column `area`, line 6: wanted a number, got nothing" in capsys.readouterr().err
        return
    assert code == 0
    data = json.loads((here / "mine/config.json").read_text())["data"]
    assert data["train_points"] + data["test_points"] == (239 if policy == "drop" else 240)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz", ".feather"])
def test_the_command_writes_inputs_of_all_kinds_and_classes(here, houses, suffix):
    assert (
        main(
            [
                "fit",
                str(houses),
                "--target",
                "kind",
                "--inputs",
                "city,area,garden,built",
                "--steps",
                "50",
                "--out",
                "mine",
            ]
        )
        == 0
    )
    assert main(["predict", "mine", "--input", str(houses), "--output", f"out{suffix}", "--quiet"]) == 0
    names = ["city", "area", "garden", "built", "kind", "kind_probability"]
    assert column_names(here / f"out{suffix}") == names
    written, given = read_table(here / f"out{suffix}", names), read_table(houses, names[:4])
    for name in ("city", "garden"):
        assert written.arrow[name].to_pylist() == given.arrow[name].to_pylist()
    assert set(written.arrow["kind"].to_pylist()) == {"big", "small"}


def test_several_targets_have_their_own_names(here, houses, capsys):
    assert (
        main(["fit", str(houses), "--target", "price,half", "--inputs", "city,area", "--steps", "5", "--out", "mine"])
        == 0
    )
    words = ["predict", "mine", "--input", str(houses), "--output", "out.csv"]
    assert main(words) == 0
    assert column_names(here / "out.csv") == ["city", "area", "price", "half"]
    assert main([*words, "--column", "z"]) == 2
    assert "--column: the model has several targets" in capsys.readouterr().err
