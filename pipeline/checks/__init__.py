"""What `matwm doctor` looks at; each check says what is wrong, why it matters and what to do."""
