"""What to run: tables, figures and plans as written in pipelines/, and the active plan that DVC loops over."""

from .figures import Figure, FigureBinding, FigureRun, read_figure
from .files import names, read_yaml
from .plans import (
    AblateStage,
    ActivePlan,
    BoundTable,
    FigureStage,
    Plan,
    PrepareStage,
    TrainStage,
    cell_spec,
    places,
    planned_names,
    planned_run,
    read_plan,
    resolve,
    spec_of,
)
from .tables import Ablation, Binding, Cell, Header, Row, Table, bind, read_table, table_name

__all__ = [
    "AblateStage",
    "Ablation",
    "ActivePlan",
    "Binding",
    "BoundTable",
    "Cell",
    "Figure",
    "FigureBinding",
    "FigureRun",
    "FigureStage",
    "Header",
    "Plan",
    "PrepareStage",
    "Row",
    "Table",
    "TrainStage",
    "bind",
    "cell_spec",
    "names",
    "places",
    "planned_names",
    "planned_run",
    "read_figure",
    "read_plan",
    "read_table",
    "read_yaml",
    "resolve",
    "spec_of",
    "table_name",
]
