//! Routes and neighbours: desired state, and the planner that turns a difference into steps.
