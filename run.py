"""`python run.py` equals `pgreflex`."""

from pipeline.app import main

if __name__ == "__main__":
    main()
