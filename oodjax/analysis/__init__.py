"""Statistics of a results table: one row per model, detector and OOD data set."""

from oodjax.analysis.anova import FACTORS as FACTORS
from oodjax.analysis.anova import anova as anova
from oodjax.analysis.anova import leave_one_category_out as leave_one_category_out
from oodjax.analysis.correlation import Correlation as Correlation
from oodjax.analysis.correlation import spearman as spearman
from oodjax.analysis.correlation import spearman_table as spearman_table
from oodjax.analysis.feature_space import ActivationProfile as ActivationProfile
from oodjax.analysis.feature_space import Embedding as Embedding
from oodjax.analysis.feature_space import activation_profile as activation_profile
from oodjax.analysis.feature_space import feature_space as feature_space
from oodjax.analysis.feature_space import pca_embedding as pca_embedding
from oodjax.analysis.ranking import Friedman as Friedman
from oodjax.analysis.ranking import cd_groups as cd_groups
from oodjax.analysis.ranking import critical_difference as critical_difference
from oodjax.analysis.ranking import friedman as friedman
from oodjax.analysis.ranking import mean_ranks as mean_ranks
from oodjax.analysis.ranking import robustness as robustness
from oodjax.analysis.table import join_models as join_models
from oodjax.analysis.verdict import Statement as Statement
from oodjax.analysis.verdict import does_accuracy_predict as does_accuracy_predict
