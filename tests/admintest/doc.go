// Package admintest drives the pages of package sessionadmin with a real browser,
// and takes the pictures of them in docs/images:
//
//	cd tests/admintest && SESSION_PICTURES=1 go test -run TestPictures
package admintest
