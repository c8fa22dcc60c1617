"""The one source of the shipped workflows: page form, API form, App mode and subgraph blueprints."""
