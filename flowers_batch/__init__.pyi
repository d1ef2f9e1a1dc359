from .classifier.label_issues import label_issues as label_issues
from .classifier.suggestions import suggest as suggest
from .classifier.training import train as train
from .config import ClusterConfig as ClusterConfig
from .config import EncodeConfig as EncodeConfig
from .config import FinetuneConfig as FinetuneConfig
from .config import PredictConfig as PredictConfig
from .config import TrainConfig as TrainConfig
from .errors import FlowersError as FlowersError
from .errors import InputError as InputError
from .errors import RunError as RunError
from .exporting.export import export as export
from .finetuning.finetune import finetune as finetune
from .pages.report.page import report as report
from .pages.review.server import review as review
from .progress import Progress as Progress
from .progress import Reporter as Reporter
from .progress import console_reporter as console_reporter
from .runs.encode import encode as encode
from .runs.predict import predict as predict
from .runs.similar import similar as similar
from .runs.summary import Summary as Summary
from .runs.verify import Verification as Verification
from .runs.verify import verify as verify
from .search.duplicates import duplicates as duplicates

__version__: str
