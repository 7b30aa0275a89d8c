"""The simulation of replicas held to measured stages that it was not fitted on."""
