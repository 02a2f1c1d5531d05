module github.com/penstock-dev/penstock/bench

go 1.26.0

require github.com/penstock-dev/penstock v0.0.0

require (
	github.com/buger/jsonparser v1.6.1 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/penstock-dev/penstock => ../
