"""What a representation is worth: tasks on frozen vectors and on networks, each giving rows of one table."""
