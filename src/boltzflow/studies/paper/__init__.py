"""Every table and figure of Máté & Fleuret (TMLR 2023), beside the published and the exact numbers."""

from boltzflow.studies.paper.page import page, write_page
from boltzflow.studies.paper.reproduce import Watcher, names, reproduce

__all__ = ["Watcher", "names", "page", "reproduce", "write_page"]
