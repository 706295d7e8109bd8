"""The service: one study in, a draft report out, over HTTP. Start reading at `app.create_app`, which assembles the parts."""
