from schemas.vectors import write

if __name__ == "__main__":
    for path in write():
        print(path)  # noqa: T201
