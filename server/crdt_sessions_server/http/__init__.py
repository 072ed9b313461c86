"""HTTP, whatever the route: problems, schemas, streams, origins, the OpenAPI document, pages, health and metrics."""
