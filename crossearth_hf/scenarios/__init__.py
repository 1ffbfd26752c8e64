"""The paper's benchmark: its domains and scenarios, and the builders of their data sets."""
