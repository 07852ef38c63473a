import subprocess

import optuna


def objective(trial):
    x, y = trial.suggest_float("x", 0.0, 1.0), trial.suggest_float("y", 0.0, 1.0)
    try:
        command = ["bash", "stub.sh", str(x), str(y)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise optuna.TrialPruned from None
    return float(done.stdout.split("loss = ")[1])


study = optuna.create_study(storage="sqlite:///race.db", study_name="race", load_if_exists=True)
study.optimize(objective, n_trials=40 - len(study.trials), n_jobs=2)
print(study.best_trial)
