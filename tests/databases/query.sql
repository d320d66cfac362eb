-- name: InsertOrder :exec
INSERT INTO orders (item) VALUES ($1);
