//! Where thema runs. Today this room holds the container image (`deploy/Dockerfile`) and no code; the Kubernetes
//! operator will live here.
