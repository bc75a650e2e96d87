"""What ``check`` looks at, one module a subject. Nothing here touches the running node."""
