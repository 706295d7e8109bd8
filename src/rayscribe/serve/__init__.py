"""The service: one study in, a draft report out, over HTTP. `app.create_app` puts the parts together; read it first."""
