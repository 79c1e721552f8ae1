"""The study of curiosity, on runs of no length to speak of."""

import json

from jepa_agent.experiments import curiosity


def test_what_is_missing_is_trained_and_told_in_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(curiosity, "_EPISODES", 1)
    asked = ["--output", str(tmp_path), "--seeds", "3", "--steps", "20", "--every", "10"]
    curiosity.main([*asked, "--variants", "with"])
    run = json.loads((tmp_path / "with-seed3.json").read_text())
    assert [row["step"] for row in run["evaluations"]] == [10, 20]
    assert {row["goals"] for row in run["evaluations"]} == {0}
    assert any("Disagreement" in term for term in run["terms"])
    capsys.readouterr()
    curiosity.main(asked)
    assert capsys.readouterr().out == "without-seed3.json: -200.0\n"  # what is there is not trained again
    assert "| without | 1 | 0/1 | - | -200 |" in (tmp_path / "table.md").read_text()


def test_a_run_is_solved_from_the_first_evaluation_over_the_threshold(tmp_path):
    curve = [{"step": 500, "mean": -150.0, "cpu_seconds": 1.0}, {"step": 1000, "mean": -110.0, "cpu_seconds": 2.0}]
    (tmp_path / "with-seed0.json").write_text(json.dumps({"evaluations": curve}))
    (tmp_path / "with-seed1.json").write_text(json.dumps({"evaluations": curve[:1]}))
    assert "| with | 2 | 1/2 | 1,000, - | -110, -150 | 2 |" in curiosity.table(tmp_path)
