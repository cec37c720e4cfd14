"""Other people's formats → feature files. Nothing in a source is executed or extracted.

| file | what |
|---|---|
| importer.py | `import_features`: finds out what a source is, and has it written |
| authors.py | the LEO authors' archive, zipped or unzipped |
| arrays.py | npz, npy and torch files |
| sources.py | what the formats share: the arrays' names, safe zips, the hash |
| pickles.py | pickles, read without running them |
| torch_files.py | torch files, looked through before torch reads them; checkpoints too |
"""
