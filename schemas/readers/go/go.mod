module imagescore

go 1.19
