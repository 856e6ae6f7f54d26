"""The method: one student-teacher step with exchangeable components. Read `step` first."""
