"""What `serve_app.validate` is made of: one module per part of the file. Nothing in here imports Ray or vLLM."""
