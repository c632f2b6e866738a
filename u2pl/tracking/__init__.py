"""The mirror of run folders in MLflow, beside training and never inside it.

`events.jsonl` is the truth about a run. A side process (`sidecar.Sidecar`) copies it while the run goes on, and
`mirror.sync` rebuilds any store from the run folders. How far a store has come is written in the store itself
(tag `u2pl.mirrored`), so that mirroring again adds nothing, from whichever process or machine.
"""
