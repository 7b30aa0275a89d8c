"""Reports: what a run found, for a terminal, a browser and a pull request.

`tables` decides which rows exist, `figures` which plots, `answers` which answers are shown; `terminal`, `html` and `markdown`
only draw them. Everything is read from a run folder: no metric is computed here, and no server, load or model is touched.
"""
