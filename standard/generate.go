package standard

//go:generate sh -c "go run ../cmd/penstock reference > ../docs/reference.md"
//go:generate sh -c "go run ../cmd/penstock schema > ../docs/penstock.schema.json"
