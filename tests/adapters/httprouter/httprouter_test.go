package web_test

import (
	"testing"

	"github.com/pgsession/session/tests/adapters/check"
	web "github.com/pgsession/session/tests/adapters/httprouter"
)

func TestLogin(t *testing.T) { check.Login(t, web.Routes) }

func TestCrossSite(t *testing.T) { check.CrossSite(t, web.Routes) }
