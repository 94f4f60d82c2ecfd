from ramify.cli import main

main()
