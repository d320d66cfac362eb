package web

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/pgsession/session"
)

func ginRoutes(sessions *session.Manager) http.Handler {
	r := gin.New()
	r.GET("/", func(c *gin.Context) {
		s := session.From(c.Request.Context()) // was sessions.Default(c)
		id, ok := userID.Get(s)                // was s.Get("userId").(int64)
		c.JSON(http.StatusOK, gin.H{
			"user": id, "in": ok,
			"errors": takeFlashes(s, "error"), "news": takeFlashes(s, "success"), // was s.Flashes("error"), …
		})
	})
	r.POST("/login", func(c *gin.Context) {
		s := session.From(c.Request.Context())
		if c.PostForm("password") != "correct horse" {
			addFlash(s, "error", "wrong password") // was s.AddFlash("wrong password", "error")
			c.Redirect(http.StatusSeeOther, "/")
			return
		}
		s.Renew()
		userID.Set(s, 42)                     // was s.Set("userId", int64(42))
		s.SetIdleTimeout(30 * 24 * time.Hour) // was s.Options(sessions.Options{MaxAge: 30 * 86400})
		c.Redirect(http.StatusSeeOther, "/")  // was s.Save() and its error
	})
	r.POST("/logout", func(c *gin.Context) {
		s := session.From(c.Request.Context())
		s.Destroy()                        // was s.Clear(), s.Options(sessions.Options{MaxAge: -1}), s.Save()
		addFlash(s, "success", "Good bye") // begins a session of its own
		c.Redirect(http.StatusSeeOther, "/")
	})
	return sessions.Handler(r) // was r.Use(sessions.Sessions("app", store)), and r.Run
}
