module github.com/penstock-dev/penstock

go 1.26.0

require (
	github.com/buger/jsonparser v1.6.1
	github.com/cockroachdb/datadriven v1.0.3
	go.uber.org/goleak v1.3.0
	golang.org/x/sys v0.49.0
)

require github.com/pmezard/go-difflib v1.0.0 // indirect
