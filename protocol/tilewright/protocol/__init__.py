"""What is said between users, services and plugins. Imports nothing else of Tilewright."""
