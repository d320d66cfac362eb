// A list of things to do, for each user who has logged in.
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/gin-gonic/gin"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
)

const user = session.Key[string]("user")

type todo struct{ db *pgxpool.Pool }

func main() {
	ctx := context.Background()
	db, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	_, err = db.Exec(ctx, `CREATE TABLE IF NOT EXISTS todo (owner text, task text)`)
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := session.Open(ctx, db)
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close()

	t := todo{db}
	r := gin.Default()
	r.POST("/login", t.login)
	r.POST("/logout", t.logout)
	tasks := r.Group("/tasks", t.loggedIn)
	tasks.GET("", t.list)
	tasks.POST("", t.add)
	log.Print(http.ListenAndServe(os.Getenv("ADDR"), http.NewCrossOriginProtection().Handler(sessions.Handler(r))))
}

// loggedIn lets those pass who have logged in.
func (t todo) loggedIn(c *gin.Context) {
	name, ok := user.Get(session.From(c.Request.Context()))
	if !ok {
		c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"error": "log in first"})
		return
	}
	c.Set("user", name)
}

func (t todo) login(c *gin.Context) {
	if c.PostForm("password") != os.Getenv("PASSWORD") {
		c.JSON(http.StatusForbidden, gin.H{"error": "wrong password"})
		return
	}
	s := session.From(c.Request.Context())
	s.Renew()
	user.Set(s, c.PostForm("name"))
	c.JSON(http.StatusOK, gin.H{"user": c.PostForm("name")})
}

func (t todo) logout(c *gin.Context) {
	session.From(c.Request.Context()).Destroy()
	c.Status(http.StatusNoContent)
}

func (t todo) list(c *gin.Context) {
	rows, _ := t.db.Query(c.Request.Context(), `SELECT task FROM todo WHERE owner = $1`, c.GetString("user"))
	tasks, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		c.JSON(http.StatusInternalServerError, gin.H{"error": "not read"})
		return
	}
	c.JSON(http.StatusOK, gin.H{"user": c.GetString("user"), "tasks": tasks})
}

func (t todo) add(c *gin.Context) {
	_, err := t.db.Exec(c.Request.Context(), `INSERT INTO todo VALUES ($1, $2)`, c.GetString("user"), c.PostForm("task"))
	if err != nil {
		c.JSON(http.StatusInternalServerError, gin.H{"error": "not saved"})
		return
	}
	c.Status(http.StatusCreated)
}
