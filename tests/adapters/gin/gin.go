// Package web is an application of its framework, as docs/adapters.md shows it.
package web

import (
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/pgsession/session"
)

const userID = session.Key[int64]("userId")

// Routes is the application: http.ListenAndServe(":8080", Routes(sessions)),
// instead of r.Run.
func Routes(sessions *session.Manager) http.Handler {
	r := gin.Default()
	r.Use(func(c *gin.Context) { c.Request.Pattern = c.FullPath() }) // the library's log names the route
	r.POST("/login", login)
	r.GET("/account", account)
	r.POST("/logout", logout)
	csrf := http.NewCrossOriginProtection() // no other site logs a user in
	return csrf.Handler(sessions.Handler(r))
}

func login(c *gin.Context) {
	s := session.From(c.Request.Context())
	s.Renew()
	userID.Set(s, 42)
	c.Redirect(http.StatusSeeOther, "/account")
}

func account(c *gin.Context) {
	id, ok := userID.Get(session.From(c.Request.Context()))
	if !ok {
		c.AbortWithStatus(http.StatusUnauthorized)
		return
	}
	c.JSON(http.StatusOK, gin.H{"account": fmt.Sprintf("user %d", id)})
}

func logout(c *gin.Context) {
	session.From(c.Request.Context()).Destroy()
	c.Redirect(http.StatusSeeOther, "/")
}
